//! The cryptography of every TLS connection that this process opens.

/// Gives rustls its cryptography, unless the program has chosen one. Whoever opens TLS connections calls this first.
pub(crate) fn install() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // The loser of a race finds the winner's provider, which serves as well.
        let _lost_race = rustls::crypto::ring::default_provider().install_default();
    }
}
