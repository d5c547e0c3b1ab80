//! [`Tenants`]: whose data a caller sees and changes.

/// The owner of what names none.
pub const DEFAULT_TENANT: &str = "default";

/// The owner of what belongs to the whole installation, as a bulk operation over all tenants. No
/// caller is bound to it: where it is named, all tenants are meant.
pub const INSTALLATION: &str = "*";

/// What a caller with no tenant at all is told who would own something.
pub const NO_TENANT: &str = "your credential names no tenant, so nothing can be yours: a user's token \
    says whose in its claim (auth.jwt_tenants_claim, `*` is all), auth.jwt_default_tenants where it \
    says nothing";

/// Whose data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenants {
    /// Everybody's, and what belongs to the whole installation: queues, gates, tokens.
    All,
    /// Theirs and no more; with none, nobody's.
    Of(Vec<String>),
}

impl Tenants {
    /// Makes them of a list; `None` is all. [`INSTALLATION`] in it is nobody.
    #[must_use]
    pub fn from_list(list: Option<Vec<String>>) -> Self {
        let Some(mut list) = list else {
            return Self::All;
        };
        list.retain(|tenant| tenant != INSTALLATION);
        Self::Of(list)
    }

    /// Returns the list, for a statement's `$n::text[] IS NULL OR … = ANY ($n)`; `None` is all.
    #[must_use]
    pub fn list(&self) -> Option<&[String]> {
        match self {
            Self::All => None,
            Self::Of(list) => Some(list),
        }
    }

    /// Returns the list that a filter leaves of them, as [`Tenants::list`]: of somebody else's,
    /// nothing.
    #[must_use]
    pub fn among(&self, asked: Option<String>) -> Option<Vec<String>> {
        let Some(asked) = asked else {
            return self.list().map(<[String]>::to_vec);
        };
        let may = self.has(Some(&asked));
        Some(Vec::from_iter(may.then_some(asked)))
    }

    /// Says whether an object of that owner is theirs; what names no owner is [`DEFAULT_TENANT`]'s.
    #[must_use]
    pub fn has(&self, owner: Option<&str>) -> bool {
        let owner = owner.unwrap_or(DEFAULT_TENANT);
        self.list()
            .is_none_or(|list| list.iter().any(|tenant| tenant == owner))
    }

    /// Returns the owner of something new: the one that is asked for, or else the only one there
    /// can be. `Err` has those to choose from.
    ///
    /// # Errors
    ///
    /// Somebody else's, or none was named and there are several.
    pub fn owner(&self, asked: Option<String>) -> Result<Option<String>, &[String]> {
        match (self, asked) {
            (Self::All, asked) => Ok(asked),
            (Self::Of(list), Some(asked)) if list.contains(&asked) => Ok(Some(asked)),
            (Self::Of(list), None) if list.len() == 1 => Ok(list.first().cloned()),
            (Self::Of(list), _) => Err(list),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &[&str]) -> Tenants {
        Tenants::Of(list.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_names_no_owner_is_the_default_ones() {
        assert!(Tenants::All.has(Some("a")) && Tenants::All.has(None));
        assert!(of(&["a"]).has(Some("a")) && !of(&["a"]).has(Some("b")));
        assert!(!of(&["a"]).has(None) && of(&["default"]).has(None));
        assert!(!of(&[]).has(None));
    }

    #[test]
    fn nobody_is_bound_to_the_installation() {
        let list = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
        assert_eq!(Tenants::from_list(list(&["*", "a"])), of(&["a"]));
        assert!(!Tenants::from_list(list(&["*"])).has(Some(INSTALLATION)));
        assert_eq!(Tenants::from_list(None), Tenants::All);
    }

    #[test]
    fn a_filter_leaves_nothing_of_somebody_elses() {
        let asked = |tenants: Tenants, name: Option<&str>| tenants.among(name.map(str::to_owned));
        assert_eq!(asked(Tenants::All, None), None);
        assert_eq!(asked(Tenants::All, Some("a")), Some(vec!["a".to_owned()]));
        assert_eq!(asked(of(&["a"]), None), Some(vec!["a".to_owned()]));
        assert_eq!(asked(of(&["a"]), Some("a")), Some(vec!["a".to_owned()]));
        assert_eq!(asked(of(&["a"]), Some("b")), Some(vec![]));
    }

    #[test]
    fn something_new_gets_an_owner() {
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(Tenants::All.owner(None), Ok(None));
        assert_eq!(Tenants::All.owner(named("x")), Ok(named("x")));
        assert_eq!(of(&["a"]).owner(None), Ok(named("a")));
        assert_eq!(of(&["a", "b"]).owner(named("b")), Ok(named("b")));
        assert!(of(&["a", "b"]).owner(None).is_err());
        assert!(of(&["a"]).owner(named("b")).is_err());
        assert!(of(&[]).owner(None).is_err());
    }
}
