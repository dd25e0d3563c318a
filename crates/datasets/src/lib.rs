//! Synthetic scenes, folders with manifests and their readers, for fireproof.
