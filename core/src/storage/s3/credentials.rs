//! The credentials that sign requests: the configured key pair, or without one those of the AWS default chain.
//!
//! Temporary credentials are replaced well before they expire. If they cannot be, the old ones are used to their end.
//! None of them is ever logged or shown.

use crate::{config::S3Settings, storage::CredentialsInfo};
use aws_config::{
    ecs::EcsCredentialsProvider, environment::EnvironmentVariableCredentialsProvider,
    imds::credentials::ImdsCredentialsProvider, profile::ProfileFileCredentialsProvider,
    provider_config::ProviderConfig, web_identity_token::WebIdentityTokenCredentialsProvider,
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError, future},
};
use aws_sdk_s3::config::{Region, SharedHttpClient};
use secrecy::ExposeSecret;
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};
use tokio::sync::Mutex;

/// How long before their expiry credentials are replaced: an instance has new ones five minutes before. Halfway through
/// the life of shorter ones.
const REFRESH_BEFORE: Duration = Duration::from_secs(240);
/// How long after a failure it is tried again, while the old ones are still valid.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Provides credentials to requests and URLs; clones share them.
#[derive(Clone, Debug)]
pub(super) struct StoreCredentials(Arc<CredentialSource>);

#[derive(Debug)]
enum CredentialSource {
    /// The configured pair.
    Configured(Credentials),
    Chain(CredentialChain),
}

/// The AWS default chain, in its documented order.
#[derive(Debug)]
struct CredentialChain {
    providers: Vec<(&'static str, Box<dyn ProvideCredentials>)>,
    current: RwLock<Option<CurrentCredentials>>,
    /// Held while new ones are loaded.
    loading: Mutex<()>,
}

#[derive(Clone, Debug)]
struct CurrentCredentials {
    credentials: Credentials,
    source: &'static str,
    refresh_at: Option<SystemTime>,
}

impl StoreCredentials {
    pub(super) fn new(settings: &S3Settings, connections: SharedHttpClient) -> Self {
        let has_pair = !settings.access_key_id.is_empty();
        Self(Arc::new(match has_pair {
            true => CredentialSource::Configured(Credentials::new(
                &settings.access_key_id,
                settings.secret_access_key.expose_secret(),
                settings
                    .session_token
                    .as_ref()
                    .map(|token| token.expose_secret().to_owned()),
                None,
                "landfall",
            )),
            false => CredentialSource::Chain(CredentialChain::new(settings, connections)),
        }))
    }

    /// The credentials to use now, and where they come from.
    ///
    /// # Errors
    /// [`CredentialsError`] when the chain provides none.
    async fn current(&self) -> Result<CurrentCredentials, CredentialsError> {
        match &*self.0 {
            CredentialSource::Configured(credentials) => Ok(CurrentCredentials {
                credentials: credentials.clone(),
                source: "the settings",
                refresh_at: None,
            }),
            CredentialSource::Chain(chain) => chain.current().await,
        }
    }

    /// Where the credentials come from, and when they expire.
    ///
    /// # Errors
    /// [`CredentialsError`] when the chain provides none.
    pub(super) async fn info(&self) -> Result<CredentialsInfo, CredentialsError> {
        let current = self.current().await?;
        Ok(CredentialsInfo {
            source: current.source,
            expires_at: current.credentials.expiry().map(Into::into),
        })
    }
}

impl ProvideCredentials for StoreCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { Ok(self.current().await?.credentials) })
    }
}

impl CredentialChain {
    fn new(settings: &S3Settings, connections: SharedHttpClient) -> Self {
        let config = ProviderConfig::without_region()
            .with_region(Some(Region::new(settings.region_name.clone())))
            .with_http_client(connections);
        let profile = ProfileFileCredentialsProvider::builder().configure(&config);
        let web_identity = WebIdentityTokenCredentialsProvider::builder().configure(&config);
        let container = EcsCredentialsProvider::builder().configure(&config);
        let instance = ImdsCredentialsProvider::builder().configure(&config);
        let environment = EnvironmentVariableCredentialsProvider::new();
        Self {
            providers: vec![
                ("the environment", Box::new(environment)),
                ("the shared profile", Box::new(profile.build())),
                ("a web identity token", Box::new(web_identity.build())),
                ("the container (ECS or EKS)", Box::new(container.build())),
                ("the instance (IMDSv2)", Box::new(instance.build())),
            ],
            current: RwLock::default(),
            loading: Mutex::default(),
        }
    }

    async fn current(&self) -> Result<CurrentCredentials, CredentialsError> {
        if let Some(fresh) = self.known(CurrentCredentials::is_fresh) {
            return Ok(fresh);
        }
        let valid = CurrentCredentials::is_valid;
        let _loading = match self.known(valid) {
            // While one request loads new ones, the others use those that are still valid.
            Some(old) => match self.loading.try_lock() {
                Ok(loading) => loading,
                Err(_) => return Ok(old),
            },
            None => self.loading.lock().await,
        };
        // Another request may have loaded them meanwhile.
        if let Some(fresh) = self.known(CurrentCredentials::is_fresh) {
            return Ok(fresh);
        }
        let error = match self.load().await {
            Ok(loaded) if !self.is_known_key(&loaded) => {
                self.keep(loaded.clone());
                return Ok(loaded);
            }
            // The SDK answers so, with a later expiry, while an instance's metadata are away.
            Ok(_) => CredentialsError::not_loaded("the same credentials were provided again"),
            Err(error) => error,
        };
        let old = self.known(valid).ok_or(error)?;
        tracing::warn!(
            source = old.source,
            "the credentials of the object store could not be renewed, the old ones are used until they expire"
        );
        self.keep(CurrentCredentials {
            refresh_at: Some(SystemTime::now() + RETRY_AFTER),
            ..old.clone()
        });
        Ok(old)
    }

    fn is_known_key(&self, loaded: &CurrentCredentials) -> bool {
        let id = |one: &CurrentCredentials| one.credentials.access_key_id().to_owned();
        self.known(|_, _| true).map(|known| id(&known)) == Some(id(loaded))
    }

    /// The current credentials, if they meet the condition.
    fn known(
        &self,
        meets: impl Fn(&CurrentCredentials, SystemTime) -> bool,
    ) -> Option<CurrentCredentials> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        current.as_ref().filter(|known| meets(known, now)).cloned()
    }

    fn keep(&self, credentials: CurrentCredentials) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some(credentials);
    }

    /// Asks one provider after the other. One that is there and fails ends the search, so that a process never works
    /// with another identity than it was given.
    async fn load(&self) -> Result<CurrentCredentials, CredentialsError> {
        for (source, provider) in &self.providers {
            match provider.provide_credentials().await {
                Ok(credentials) => return Ok(CurrentCredentials::new(credentials, source)),
                Err(CredentialsError::CredentialsNotLoaded(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CredentialsError::not_loaded(
            "neither the environment, nor a profile, a web identity, the container or the instance provides any",
        ))
    }
}

impl CurrentCredentials {
    fn new(credentials: Credentials, source: &'static str) -> Self {
        let refresh_at = credentials.expiry().map(|expires_at| {
            let now = SystemTime::now();
            let life = expires_at.duration_since(now).unwrap_or_default();
            now + (life / 2).max(life.saturating_sub(REFRESH_BEFORE))
        });
        Self {
            credentials,
            source,
            refresh_at,
        }
    }

    fn is_fresh(&self, now: SystemTime) -> bool {
        self.is_valid(now) && self.refresh_at.is_none_or(|at| at > now)
    }

    fn is_valid(&self, now: SystemTime) -> bool {
        self.credentials.expiry().is_none_or(|at| at > now)
    }
}
