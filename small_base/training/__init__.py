"""The networks of the small base, and what trains them."""
