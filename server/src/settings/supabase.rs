//! Supabase's own variables, for those who start the server beside a Supabase project.

use url::Url;

use super::{JwtSettings, Secret, SettingsError};

/// The secret of a project that signs with HS256.
const SECRET: &str = "SUPABASE_JWT_SECRET";
/// Where the project is; it publishes its public keys beneath.
const URL: &str = "SUPABASE_URL";
/// What the tokens of signed-in users are made for. The project's `anon` and `service_role` keys are not.
const AUDIENCE: &str = "authenticated";
const ISSUER_PATH: &str = "/auth/v1";
const JWKS_PATH: &str = "/auth/v1/.well-known/jwks.json";

impl JwtSettings {
    /// These settings, or, where they name neither a secret nor a key set, those of the Supabase project that `lookup`
    /// knows: `SUPABASE_JWT_SECRET`, and `SUPABASE_URL` with its public keys and its issuer. Tokens must then be for the
    /// audience `authenticated`. An issuer and an audience that are set stay.
    ///
    /// `lookup` gives the value of a variable; an empty one counts as none.
    ///
    /// # Errors
    /// [`SettingsError::SupabaseUrl`].
    pub fn or_supabase(self, lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        if self.secret.is_some() || self.jwks_url.is_some() {
            return Ok(self);
        }
        let given = |name| lookup(name).filter(|value| !value.is_empty());
        let secret = given(SECRET).map(Secret::new);
        let project = given(URL).map(|url| project(&url)).transpose()?;
        if secret.is_none() && project.is_none() {
            return Ok(self);
        }
        let beneath = |path: &str| {
            let mut url = project.clone()?;
            url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
            Some(url)
        };
        Ok(Self {
            secret,
            jwks_url: beneath(JWKS_PATH),
            issuer: self.issuer.or_else(|| beneath(ISSUER_PATH).map(String::from)),
            audience: self.audience.or_else(|| Some(AUDIENCE.to_owned())),
            ..self
        })
    }
}

fn project(url: &str) -> Result<Url, SettingsError> {
    let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or(SettingsError::SupabaseUrl)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Algorithm;

    const LONG_ENOUGH: &str = "a secret of a project at Supabase";

    fn settings(own: JwtSettings, variables: &[(&str, &str)]) -> Result<JwtSettings, SettingsError> {
        let of = |name: &str| variables.iter().find(|(known, _)| *known == name);
        own.or_supabase(|name| of(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn a_project_is_known_by_its_url() {
        let urls = ["https://x.supabase.co", "https://x.supabase.co/"];
        for url in urls {
            let found = settings(JwtSettings::default(), &[(URL, url), (SECRET, "")]).expect("a URL");
            let jwks = found.jwks_url.as_ref().map(Url::as_str);
            assert_eq!(jwks, Some("https://x.supabase.co/auth/v1/.well-known/jwks.json"));
            assert_eq!(found.issuer.as_deref(), Some("https://x.supabase.co/auth/v1"));
            assert_eq!(found.audience.as_deref(), Some("authenticated"));
            assert_eq!(found.allowed_algorithms(), [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa]);
            found.validate().expect("valid");
        }
        let local = settings(JwtSettings::default(), &[(URL, "http://kong:8000/base")]).expect("a URL");
        assert_eq!(local.issuer.as_deref(), Some("http://kong:8000/base/auth/v1"));
    }

    #[test]
    fn a_project_that_changes_over_to_public_keys_has_both() {
        let both = [(URL, "https://x.supabase.co"), (SECRET, LONG_ENOUGH)];
        let found = settings(JwtSettings::default(), &both).expect("valid");
        assert_eq!(found.secret, Some(Secret::new(LONG_ENOUGH)));
        assert_eq!(found.allowed_algorithms().len(), 4);
        found.validate().expect("valid");
        let secret_only = settings(JwtSettings::default(), &both[1..]).expect("valid");
        assert_eq!((secret_only.issuer, secret_only.jwks_url), (None, None));
        assert_eq!(secret_only.audience.as_deref(), Some("authenticated"));
    }

    #[test]
    fn what_is_set_goes_before_what_supabase_says() {
        let variables = [(URL, "https://x.supabase.co"), (SECRET, LONG_ENOUGH)];
        let own = JwtSettings::with_secret("a secret of our own");
        assert_eq!(settings(own.clone(), &variables), Ok(own));
        let issuer = Some("https://auth.example.com".to_owned());
        let behind_a_name = JwtSettings { issuer: issuer.clone(), ..JwtSettings::default() };
        assert_eq!(settings(behind_a_name, &variables).expect("valid").issuer, issuer);
        assert_eq!(settings(JwtSettings::default(), &[]), Ok(JwtSettings::default()));
        for wrong in ["x.supabase.co", "postgres://x"] {
            assert_eq!(settings(JwtSettings::default(), &[(URL, wrong)]), Err(SettingsError::SupabaseUrl));
        }
    }
}
