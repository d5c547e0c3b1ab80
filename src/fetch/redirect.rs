//! Where an answer sends us, and what goes along.

use reqwest::Url;

use super::{FetchError, Method, Request, Response, target::Rules};

/// Returns where an answer sends us; `None` where it is the answer itself.
pub(super) fn location(response: &Response) -> Option<&str> {
    matches!(response.status, 301 | 302 | 303 | 307 | 308)
        .then(|| response.header("location"))
        .flatten()
}

/// Turns a request into the one that its redirect asks for; returns where it goes.
///
/// The new URL is judged like any other. Headers of the caller's stay with the first origin, and
/// so does a body: a secret in either was meant for that one.
pub(super) fn follow(
    rules: &Rules,
    from: &Url,
    response: &Response,
    location: &str,
    request: &mut Request,
) -> Result<Url, FetchError> {
    let joined = from.join(location);
    let joined = joined.map_err(|_| FetchError::Redirect("its location does not parse"))?;
    let to = rules.target(joined.as_str())?;
    if from.scheme() == "https" && to.scheme() == "http" {
        return Err(FetchError::Redirect("it leads from https to http"));
    }
    let keeps_method = matches!(response.status, 307 | 308);
    if request.method == Method::Post && !keeps_method {
        request.method = Method::Get;
        request.body.clear();
        request
            .headers
            .retain(|(name, _)| !name.starts_with("content-"));
    }
    if from.origin() != to.origin() {
        if !request.body.is_empty() {
            return Err(FetchError::Redirect("it would carry the body elsewhere"));
        }
        request.headers.clear();
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_does_not_leave_https() {
        let rules = Rules::new(&crate::config::Fetch::default());
        let to = |from: &str, location: &str| {
            let mut request = Request::get(from);
            let from = Url::parse(from).unwrap();
            let followed = follow(&rules, &from, &Response::of(302), location, &mut request);
            followed.map(|url| url.to_string())
        };
        for from in ["https://x.test/a", "http://x.test/a"] {
            let up = to(from, "https://x.test/b");
            assert_eq!(up, Ok("https://x.test/b".to_owned()));
        }
        assert_eq!(
            to("http://x.test/a", "/b"),
            Ok("http://x.test/b".to_owned())
        );
        for down in ["http://x.test/b", "http://other.test/b"] {
            let refused = to("https://x.test/a", down);
            assert!(matches!(refused, Err(FetchError::Redirect(_))), "{down}");
        }
    }
}
