"""Pages as one HTML file: `rendering` is of any page, `page` of the report."""
