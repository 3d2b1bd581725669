"""Weights fitted in closed form to the activations of another model: what a lossy pass does with what it left."""
