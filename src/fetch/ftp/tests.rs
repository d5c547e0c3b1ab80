//! What a server's name leads to. The exchange itself is in `tests/it/fetch_ftp.rs`.

use std::time::Duration;

use super::FtpRequest;
use crate::{
    config,
    fetch::{Client, FetchError, Fetcher, tests::Names},
};

#[tokio::test]
async fn a_name_that_leads_inside_is_not_connected_to() {
    let names = Names::of(&[
        ("inside.test", &["10.0.0.7"]),
        ("mixed.test", &["93.184.216.34", "127.0.0.1"]),
    ]);
    let client = Client::with_lookup(&config::Fetch::default(), names);
    let fetcher = Fetcher::Real(client);
    for host in ["inside.test", "mixed.test", "nowhere.test"] {
        for scheme in ["ftp", "ftps"] {
            let request = FtpRequest {
                url: format!("{scheme}://{host}/a.csv"),
                login: None,
                known: None,
            };
            let came = fetcher.ftp(request, 1, Duration::from_mins(1)).await;
            let error = came.map(drop).expect_err(host);
            let is_refused = matches!(error, FetchError::Address { .. } | FetchError::Dns(_));
            assert!(is_refused, "{host}: {error}");
        }
    }
}
