//! What every page has around it: where one can go, and who one is.

use super::{
    super::Caller,
    asset::{css_path, js_path},
};
use crate::access::{Role, Tenants};

/// A page's frame, as its caller may see it.
#[derive(Debug)]
pub(super) struct Frame {
    here: &'static str,
    who: Option<String>,
    /// `None`: nobody is known.
    role: Option<Role>,
    is_whole: bool,
}

/// A way to another page.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) href: &'static str,
    pub(super) text: &'static str,
    pub(super) is_here: bool,
}

/// The pages, and whether they belong to the whole installation.
const LINKS: [(&str, &str, bool); 6] = [
    ("/", "Overview", false),
    ("/imports", "Imports", false),
    ("/runs", "Runs", false),
    ("/queues", "Queues", true),
    ("/dead", "Dead letters", false),
    ("/schedules", "Schedules", false),
];

impl Frame {
    /// The frame of a page in the part of the site that begins at `here`.
    pub(super) fn of(caller: &Caller, here: &'static str) -> Self {
        // Without a credential there is nothing to sign out of.
        let who = (caller.actor != "local").then(|| format!("{}, {}", caller.actor, caller.role));
        Self {
            here,
            who,
            role: Some(caller.role),
            is_whole: caller.tenants == Tenants::All,
        }
    }

    /// The frame of a page for who is not known.
    pub(super) const fn nobodys() -> Self {
        Self {
            here: "",
            who: None,
            role: None,
            is_whole: false,
        }
    }

    pub(super) fn links(&self) -> Vec<Link> {
        let may_see = |whole: bool| self.role.is_some() && (self.is_whole || !whole);
        let links = LINKS.iter().filter(|(_, _, whole)| may_see(*whole));
        let links = links.map(|&(href, text, _)| Link {
            href,
            text,
            is_here: href == self.here,
        });
        links.collect()
    }

    pub(super) const fn who(&self) -> Option<&String> {
        self.who.as_ref()
    }

    /// Says whether buttons are shown; that they are not is no protection, the route's role is.
    pub(super) fn may_act(&self) -> bool {
        self.role >= Some(Role::Operator)
    }

    #[expect(clippy::unused_self, reason = "templates call it of the frame")]
    pub(super) fn css(&self) -> String {
        css_path()
    }

    #[expect(clippy::unused_self, reason = "templates call it of the frame")]
    pub(super) fn js(&self) -> String {
        js_path()
    }
}
