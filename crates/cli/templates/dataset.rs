//! TYPE: a folder of images and masks, described by `manifest.toml`.
//!
//! `data list` shows it; `data check NAME --root DIR` reads every sample; `bench --data NAME --root DIR` attacks it.

/// What the data set is and where its files lie.
pub const MANIFEST: &str = include_str!("../manifest.toml");

inventory::submit! {
    fireproof_datasets::Registration { manifest: MANIFEST }
}

#[cfg(test)]
mod tests {
    use fireproof_datasets::Manifest;

    #[test]
    fn the_manifest_is_known_by_name() {
        let manifest = Manifest::find("NAME").unwrap();
        assert_eq!((manifest.classes.len(), manifest.splits.len()), (2, 3));
        assert_eq!(Manifest::parse("manifest.toml".as_ref(), super::MANIFEST).unwrap(), manifest);
    }
}
