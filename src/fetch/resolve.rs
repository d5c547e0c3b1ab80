//! Names to addresses: looked up once, all of them checked, no others connected to.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{FetchError, target::Rules};

/// Most addresses of one name that are tried.
const MOST_ADDRESSES: usize = 16;

/// Longest look-up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Finds the addresses of a name.
pub(super) trait Lookup: Send + Sync + std::fmt::Debug {
    /// Returns all of them, in the order they are to be tried.
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// Asks the system.
#[derive(Debug)]
pub(super) struct System;

impl Lookup for System {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Stands between the client and the look-up. Its answer is what the client connects to: nothing
/// is looked up a second time, so no second answer can differ.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub(super) rules: Arc<Rules>,
    pub(super) lookup: Arc<dyn Lookup>,
}

impl Guard {
    /// Returns the addresses of a name, if all of them may be connected to.
    pub(super) async fn addresses(self, host: String) -> Result<Vec<IpAddr>, FetchError> {
        let looked_up = tokio::time::timeout(LOOKUP_TIMEOUT, self.lookup.lookup(host.clone()));
        let Ok(found) = looked_up.await else {
            return Err(FetchError::Timeout(format!("the look-up of {host}")));
        };
        let mut found = found.map_err(|_| FetchError::Dns(host.clone()))?;
        // One bad address is enough: which one is connected to is not for the answer to say.
        for address in &found {
            self.rules.judge_address(&host, *address)?;
        }
        found.truncate(MOST_ADDRESSES);
        if found.is_empty() {
            return Err(FetchError::Dns(host));
        }
        Ok(found)
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guarded = self.clone().addresses(name.as_str().to_owned());
        Box::pin(async move {
            let found = guarded.await?;
            // Port 0 stands for the URL's.
            let addresses: Addrs = Box::new(found.into_iter().map(|ip| (ip, 0).into()));
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[derive(Debug)]
    struct Many;

    impl Lookup for Many {
        fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            let found = (0..100).map(|n| IpAddr::from([203, 0, 114, n])).collect();
            Box::pin(async { Ok(found) })
        }
    }

    #[tokio::test]
    async fn of_a_name_with_many_addresses_a_few_are_tried() {
        let guard = Guard {
            rules: Arc::new(Rules::new(&config::Fetch::default())),
            lookup: Arc::new(Many),
        };
        let found = guard.addresses("x.test".to_owned()).await.unwrap();
        assert_eq!(found.len(), MOST_ADDRESSES);
    }
}
