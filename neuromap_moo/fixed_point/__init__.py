"""Simulation of spiking networks in the integers of a chip, to measure activity."""
