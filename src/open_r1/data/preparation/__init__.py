"""What the preparations of image sets share: encoding thousands of images, and finished folders."""
