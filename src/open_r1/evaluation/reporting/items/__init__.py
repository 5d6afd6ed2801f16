"""The questions and answers in the report's page: collected, packed and with small images."""
