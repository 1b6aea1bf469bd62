//! Waiting for a condition: never a sleep that hopes.

use std::time::{Duration, Instant};

/// Longest that anything in these tests may take.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Asks until the answer is there.
///
/// # Panics
/// After [`LIMIT`], with what was waited for.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < LIMIT, "waited {LIMIT:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a future.
///
/// # Panics
/// After [`LIMIT`], with what was waited for.
pub async fn limited<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {LIMIT:?} for {what}"),
    }
}
