"""Rules proposed for a tree and a mesh: fully sharded by size, tensor parallel by the roles of layers."""
