"""SimCampus, a procedural simulator of surveillance footage: ``render.make_footage`` is its one door."""
