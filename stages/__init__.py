"""What is done, one folder a stage, in the order the data passes."""
