//! Waiting for a thing instead of for time to pass.

use std::time::Duration;

use tokio::time::Instant;

/// A thing did not come before its deadline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("waited {waited:?} for {what}, in vain")]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// For how long.
    pub waited: Duration,
}

const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Asks `look` again and again until it returns something, at most for `deadline`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
/// let mut looks = 0;
/// let third = synchrotron_testkit::wait_for("the third look", Duration::from_secs(5), async || {
///     looks += 1;
///     (looks == 3).then_some("here")
/// });
/// assert_eq!(third.await, Ok("here"));
/// # }
/// ```
///
/// # Errors
/// [`TimedOut`], which says what was waited for. A look that hangs is cut off at the deadline.
pub async fn wait_for<T>(
    what: impl Into<String>,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Result<T, TimedOut> {
    let until = Instant::now() + deadline;
    let mut pause = PAUSE_MIN;
    let polling = async {
        loop {
            if let Some(thing) = look().await {
                return thing;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    };
    tokio::time::timeout_at(until, polling).await.map_err(|_| TimedOut { what: what.into(), waited: deadline })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn says_what_it_waited_for() {
        let never = wait_for("godot", Duration::from_secs(3), async || None::<()>).await;
        assert_eq!(never.expect_err("never came").to_string(), "waited 3s for godot, in vain");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_cut_off() {
        let hung = wait_for("an answer", Duration::from_secs(3), async || std::future::pending::<Option<()>>().await);
        assert!(hung.await.is_err());
    }
}
