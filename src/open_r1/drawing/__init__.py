"""What training and evaluation both draw: training curves, and figures as files."""
