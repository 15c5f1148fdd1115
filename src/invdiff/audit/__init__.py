"""How far each solver is from the true posterior, measured where that posterior is known."""
