"""What is where: inventories, SBOMs, scanners, VEX, campaigns."""
