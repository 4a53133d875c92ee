"""What one would write without Latentmill: the programs it is measured against."""
