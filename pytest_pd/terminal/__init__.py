"""Commands that measure and show: above load and measure, below nothing."""
