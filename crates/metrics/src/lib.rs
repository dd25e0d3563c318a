//! Segmentation metrics from integer confusion counts.
