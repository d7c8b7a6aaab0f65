"""The training loop, its optimisers and parametrizations."""
