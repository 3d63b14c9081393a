"""InfoGraph with GIN on graph classification datasets."""
