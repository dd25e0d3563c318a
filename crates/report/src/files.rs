//! Output files appear whole or not at all.

use std::io::Write;
use std::path::Path;

use crate::ReportError;

/// Writes to a temporary name in the same folder, then renames.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(ReportError::io(folder, "create the folder"))?;
    let mut file = tempfile::Builder::new()
        .prefix(".")
        .suffix(".tmp")
        .permissions_like_new_files()
        .tempfile_in(folder)
        .map_err(ReportError::io(path, "write"))?;
    file.write_all(bytes).map_err(ReportError::io(path, "write"))?;
    file.persist(path).map_err(|error| error.error).map_err(ReportError::io(path, "rename the finished file to"))?;
    Ok(())
}

trait NewFilePermissions {
    fn permissions_like_new_files(&mut self) -> &mut Self;
}

impl NewFilePermissions for tempfile::Builder<'_, '_> {
    /// Temporary files are private by default; a report is for colleagues too, so leave that to the umask.
    fn permissions_like_new_files(&mut self) -> &mut Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            self.permissions(std::fs::Permissions::from_mode(0o666));
        }
        self
    }
}
