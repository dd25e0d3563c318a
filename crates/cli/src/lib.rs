//! The commands of fireproof as a library.
