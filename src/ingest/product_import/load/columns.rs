//! Which of the optional columns a file has.
//!
//! A column that the file does not have changes nothing in the catalog; an
//! empty cell of a column that it has clears the value. `code` and `name` are
//! always there and have no bit.

use super::super::row::{field::Field, header::Mapping};

/// A set of optional columns.
///
/// Its bits stand in `update.sql`: they change together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Columns(u16);

impl Columns {
    /// The `description` column.
    pub const DESCRIPTION: Self = Self(1);
    /// The `brand` column.
    pub const BRAND: Self = Self(1 << 1);
    /// The `category` column.
    pub const CATEGORY: Self = Self(1 << 2);
    /// The `price` column.
    pub const PRICE: Self = Self(1 << 3);
    /// The `currency` column; it says something only beside a price.
    pub const CURRENCY: Self = Self(1 << 4);
    /// The `stock` column.
    pub const STOCK: Self = Self(1 << 5);
    /// The `ean` column.
    pub const EAN: Self = Self(1 << 6);
    /// The `url` column.
    pub const URL: Self = Self(1 << 7);
    /// The `weight` column.
    pub const WEIGHT: Self = Self(1 << 8);
    /// The `updated_at` column.
    pub const UPDATED_AT: Self = Self(1 << 9);
    /// Any extra column; all of them together are the product's attributes.
    pub const ATTRIBUTES: Self = Self(1 << 10);

    /// Only `code` and `name`.
    pub const NONE: Self = Self(0);
    /// Every optional column, extra ones too.
    pub const ALL: Self = Self((1 << 11) - 1);

    /// Returns the columns that a file has by its header row.
    #[must_use]
    pub fn of(mapping: &Mapping) -> Self {
        let fields = mapping.fields();
        let present = |(field, column): &(Field, Self)| fields.contains(*field).then_some(*column);
        let known = [
            (Field::Description, Self::DESCRIPTION),
            (Field::Brand, Self::BRAND),
            (Field::Category, Self::CATEGORY),
            (Field::Price, Self::PRICE),
            (Field::Currency, Self::CURRENCY),
            (Field::Stock, Self::STOCK),
            (Field::Ean, Self::EAN),
            (Field::Url, Self::URL),
            (Field::Weight, Self::WEIGHT),
            (Field::UpdatedAt, Self::UPDATED_AT),
        ];
        let attributes = if mapping.has_attributes() {
            Self::ATTRIBUTES
        } else {
            Self::NONE
        };
        known
            .iter()
            .filter_map(present)
            .fold(attributes, Self::with)
    }

    /// Returns the set with `other` added.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the set with `other` taken out.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns whether every column of `other` is in the set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the bits as `update.sql` reads them.
    pub(super) fn bits(self) -> i32 {
        i32::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_added() {
        let columns = Columns::NONE.with(Columns::PRICE).with(Columns::BRAND);
        assert!(columns.has(Columns::PRICE) && columns.has(Columns::BRAND));
        assert!(!columns.has(Columns::STOCK) && !columns.has(Columns::ALL));
        assert!(!columns.without(Columns::PRICE).has(Columns::PRICE));
        assert!(Columns::ALL.has(Columns::ATTRIBUTES.with(Columns::DESCRIPTION)));
    }
}
