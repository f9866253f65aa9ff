//! Tokens end while devices work.
