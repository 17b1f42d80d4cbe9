"""Who owns devices and how they live with them; shares by region, places, use."""
