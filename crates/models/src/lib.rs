//! Segmentation networks, layers, and the import and export of their weights.
