"""A photo library: the faces of pictures as people have them, grouped by person, over days."""
