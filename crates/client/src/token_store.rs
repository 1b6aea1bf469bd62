//! Where a subscriber keeps its position.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Far longer than any token.
const MAX_BYTES: u64 = 1 << 20;

/// Keeps the token of one subscriber. A database that the events are written to is the best one: in
/// the same transaction, each event is then handled exactly once.
pub trait TokenStore: Send + Sync {
    /// What was saved last; `None` if nothing ever was.
    fn load(&self) -> impl Future<Output = io::Result<Option<String>>> + Send;

    /// Replaces what was saved. Once it has returned, a crash must not lose it.
    fn save(&self, token: &str) -> impl Future<Output = io::Result<()>> + Send;
}

/// A file. A crash leaves the old token or the new one, never a part.
#[derive(Debug, Clone)]
pub struct FileTokenStore {
    path: PathBuf,
}

impl FileTokenStore {
    /// A store in this file. Its folder must be there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl TokenStore for FileTokenStore {
    async fn load(&self) -> io::Result<Option<String>> {
        let path = self.path.clone();
        blocking(move || load(&path)).await
    }

    async fn save(&self, token: &str) -> io::Result<()> {
        let (path, token) = (self.path.clone(), token.to_owned());
        blocking(move || save(&path, &token)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(io::Error::other(error)),
    }
}

fn load(path: &Path) -> io::Result<Option<String>> {
    let named = |error: io::Error| {
        let what = format!("cannot read the token from {}: {error}", path.display());
        io::Error::new(error.kind(), what)
    };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(named(error)),
        Ok(found) if found.len() > MAX_BYTES => {
            return Err(named(io::Error::other("it is too large to be a token")));
        }
        Ok(_) => {}
    }
    let token = fs::read_to_string(path).map_err(named)?;
    let token = token.trim();
    if token.is_empty() {
        let what = "the file is empty; remove it to start anew";
        return Err(named(io::Error::other(what)));
    }
    Ok(Some(token.to_owned()))
}

fn save(path: &Path, token: &str) -> io::Result<()> {
    let done = || {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = path.with_file_name(name);
        let mut file = File::create(&new)?;
        file.write_all(token.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        // The new name must survive as well.
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    done().map_err(|error: io::Error| {
        let what = format!("cannot save the token to {}: {error}", path.display());
        io::Error::new(error.kind(), what)
    })
}

/// Memory, for tests and for what need not outlive the process. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryTokenStore(Arc<Mutex<Option<String>>>);

impl MemoryTokenStore {
    /// What was saved last.
    pub fn token(&self) -> Option<String> {
        let token = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        token.clone()
    }
}

impl TokenStore for MemoryTokenStore {
    async fn load(&self) -> io::Result<Option<String>> {
        Ok(self.token())
    }

    async fn save(&self, token: &str) -> io::Result<()> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(token.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_keeps_the_last_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let store = FileTokenStore::new(&path);
        assert_eq!(store.load().await.unwrap(), None);
        store.save("one").await.unwrap();
        store.save("two").await.unwrap();
        let again = FileTokenStore::new(&path);
        assert_eq!(again.load().await.unwrap().as_deref(), Some("two"));
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[tokio::test]
    async fn a_broken_file_is_not_a_new_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "\n").unwrap();
        let store = FileTokenStore::new(&path);
        let error = store.load().await.unwrap_err().to_string();
        assert!(error.contains("empty"), "{error}");
        let nowhere = FileTokenStore::new(folder.path().join("no/token"));
        let error = nowhere.save("t").await.unwrap_err().to_string();
        assert!(error.contains("no/token"), "{error}");
    }
}
