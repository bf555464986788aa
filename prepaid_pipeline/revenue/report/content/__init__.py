"""What a report says: a document of figures and sections, without any format."""
