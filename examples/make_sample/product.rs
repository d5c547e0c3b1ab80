//! The products of the sample: the same for the same seed, in any order. Pure.

/// Headers of the sample's columns: every known field, and one that becomes an attribute.
pub(crate) const HEADERS: [&str; 13] = [
    "code",
    "name",
    "description",
    "brand",
    "category",
    "price",
    "currency",
    "stock",
    "ean",
    "url",
    "weight",
    "updated_at",
    "Material",
];

/// What is wrong with a bad row; they take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No code.
    NoCode,
    /// No name.
    NoName,
    /// A price as people write it: `1.234,56 €`.
    WrittenPrice,
    /// A price below zero.
    NegativePrice,
    /// Half a piece in stock.
    HalfStock,
    /// Less than nothing in stock.
    NegativeStock,
    /// A bar code that a spreadsheet made a number of: `4.00638E+12`.
    LostEan,
    /// A code that a spreadsheet made a number of.
    LostCode,
    /// The 30th of February.
    ImpossibleDate,
    /// The code of the first product.
    DuplicateCode,
    /// A price of 10^15.
    HugePrice,
    /// A weight in words.
    WrittenWeight,
    /// `#N/A` for a price.
    ErrorPrice,
    /// No name, a price below zero and half a piece in stock.
    Three,
}

impl Fault {
    /// Every fault, in the order of their turns.
    pub(crate) const ALL: [Self; 14] = [
        Self::NoCode,
        Self::NoName,
        Self::WrittenPrice,
        Self::NegativePrice,
        Self::HalfStock,
        Self::NegativeStock,
        Self::LostEan,
        Self::LostCode,
        Self::ImpossibleDate,
        Self::DuplicateCode,
        Self::HugePrice,
        Self::WrittenWeight,
        Self::ErrorPrice,
        Self::Three,
    ];

    /// Returns how many row errors it makes.
    pub(crate) fn n_errors(self) -> u32 {
        if self == Self::Three { 3 } else { 1 }
    }
}

/// A cell of the sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    /// Nothing.
    Blank,
    /// Text.
    Text(String),
    /// A number.
    Number(f64),
    /// A date: minutes since 1970.
    Date(i64),
    /// The error `#N/A`.
    Error,
}

/// A sample of `n_rows` products, `n_bad` of them bad, spread evenly.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Data rows, good and bad.
    pub(crate) n_rows: u64,
    /// Bad rows; fewer than half of all.
    pub(crate) n_bad: u64,
    /// Chooses another sample.
    pub(crate) seed: u64,
    /// 0 for the file as it first came; each later edition has other prices in a tenth of the rows,
    /// and in half of these another stock.
    pub(crate) edition: u32,
}

const KINDS: [(&str, &str); 16] = [
    ("Lamp", "Lighting"),
    ("Desk Lamp", "Lighting"),
    ("Chair", "Furniture"),
    ("Bookshelf", "Furniture"),
    ("Side Table", "Furniture"),
    ("Kettle", "Kitchen"),
    ("Pan", "Kitchen"),
    ("Knife Set", "Kitchen"),
    ("Backpack", "Outdoor"),
    ("Tent", "Outdoor"),
    ("Sleeping Bag", "Outdoor"),
    ("Drill", "Tools"),
    ("Hammer", "Tools"),
    ("Saw", "Tools"),
    ("Notebook", "Office"),
    ("Fountain Pen", "Office"),
];
const STYLES: [&str; 12] = [
    "Compact",
    "Classic",
    "Foldable",
    "Heavy-Duty",
    "Slim",
    "Nordic",
    "Vintage",
    "Modern",
    "Portable",
    "Everyday",
    "Premium",
    "Junior",
];
const BRANDS: [&str; 10] = [
    "Lumora",
    "Hölmqvist",
    "Alpenfels",
    "Casa Viva",
    "Northbay",
    "Kōbō",
    "Brüder Lang",
    "Estación",
    "Tidewater",
    "O'Hara & Sons",
];
const MATERIALS: [&str; 8] = [
    "oak",
    "steel",
    "aluminium",
    "cotton",
    "glass",
    "recycled plastic",
    "leather",
    "bamboo",
];
const PRAISE: [&str; 8] = [
    "Made to be repaired.",
    "Five years of guarantee.",
    "Ships in a box without plastic.",
    "Tested by hand.",
    "Fits where others do not.",
    "Comes with spare parts.",
    "Designed in Malmö.",
    "Easy to clean.",
];

impl Sample {
    /// Returns what is wrong with a row, counted from 0; `None` when nothing is.
    pub(crate) fn fault(&self, row: u64) -> Option<Fault> {
        let before = row * self.n_bad / self.n_rows;
        let is_bad = (row + 1) * self.n_bad / self.n_rows > before;
        let turn = usize::try_from(before).ok()? % Fault::ALL.len();
        is_bad.then(|| Fault::ALL.get(turn).copied()).flatten()
    }

    /// Returns how many row errors the sample makes.
    pub(crate) fn n_errors(&self) -> u32 {
        (0..self.n_rows)
            .filter_map(|row| self.fault(row))
            .map(Fault::n_errors)
            .sum()
    }

    /// Returns the cells of a row, counted from 0.
    pub(crate) fn cells(&self, row: u64) -> [Cell; 13] {
        let mut cells = self.good_cells(row);
        if let Some(fault) = self.fault(row) {
            let first = self.code(0);
            spoil(&mut cells, fault, first);
        }
        cells
    }

    fn code(&self, row: u64) -> String {
        // zeros in front, as real codes have them, and letters now and then
        match row % 4 {
            0 => format!("{:08}", 10_000 + row),
            1 => format!("A-{row:06}"),
            2 => format!(
                "{}-{row}",
                ["LX", "QT", "ZZ"]
                    .get(index(self.chance(row, 9), 3))
                    .unwrap_or(&"X")
            ),
            _ => format!("P{row:07}.{}", row % 10),
        }
    }

    fn good_cells(&self, row: u64) -> [Cell; 13] {
        let pick = |salt, from: &[&str]| {
            let at = index(self.chance(row, salt), from.len());
            from.get(at).copied().unwrap_or_default().to_owned()
        };
        let (kind, category) = KINDS
            .get(index(self.chance(row, 1), KINDS.len()))
            .copied()
            .unwrap_or_default();
        let (style, brand, material) = (pick(2, &STYLES), pick(3, &BRANDS), pick(4, &MATERIALS));
        let name = format!("{style} {kind} {}", 100 + self.chance(row, 5) % 9900);
        let description = format!(
            "{name} by {brand}, made of {material}. {} {}",
            pick(6, &PRAISE),
            pick(7, &PRAISE)
        );
        let (dearer, more) = self.changed(row);
        let cents = 199 + self.chance(row, 8) % 49_900 + dearer;
        let grams = 50 + self.chance(row, 10) % 20_000;
        let minutes = 29_000_000 + self.chance(row, 11) % 500_000;
        let url = format!("https://shop.example/{}/{row}", category.to_lowercase());
        [
            Cell::Text(self.code(row)),
            Cell::Text(name),
            Cell::Text(description),
            Cell::Text(brand),
            Cell::Text(category.to_owned()),
            Cell::Number(whole(cents) / 100.0),
            Cell::Text("EUR".to_owned()),
            Cell::Number(whole(self.chance(row, 12) % 500 + more)),
            Cell::Text(ean(row)),
            Cell::Text(url),
            Cell::Number(whole(grams) / 1000.0),
            Cell::Date(i64::try_from(minutes).unwrap_or_default()),
            Cell::Text(material),
        ]
    }

    /// Returns by how much this edition raises a row's price, in cents, and its stock.
    fn changed(&self, row: u64) -> (u64, u64) {
        let edition = u64::from(self.edition);
        match row % 20 {
            3 => (edition * 100, 0),
            13 => (edition * 100, edition),
            _ => (0, 0),
        }
    }

    /// Returns a number that depends on the seed, the row and the salt only (`SplitMix64`).
    fn chance(&self, row: u64, salt: u64) -> u64 {
        let mut z = self
            .seed
            .wrapping_mul(0xd134_2543_de82_ef95)
            .wrapping_add(row.wrapping_mul(32).wrapping_add(salt))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) >> 8
    }
}

fn index(chance: u64, len: usize) -> usize {
    usize::try_from(chance).unwrap_or_default() % len
}

fn whole(number: u64) -> f64 {
    u32::try_from(number).unwrap_or_default().into()
}

/// Returns a bar code with the right check digit (GS1).
fn ean(row: u64) -> String {
    let digits = format!("400{row:09}");
    let sum: u32 = digits
        .chars()
        .filter_map(|digit| digit.to_digit(10))
        .zip([1, 3].into_iter().cycle())
        .map(|(digit, weight)| digit * weight)
        .sum();
    format!("{digits}{}", (10 - sum % 10) % 10)
}

fn spoil(cells: &mut [Cell; 13], fault: Fault, first_code: String) {
    let [
        code,
        name,
        _,
        _,
        _,
        price,
        _,
        stock,
        ean,
        _,
        weight,
        updated_at,
        _,
    ] = cells;
    let text = |text: &str| Cell::Text(text.to_owned());
    match fault {
        Fault::NoCode => *code = Cell::Blank,
        Fault::NoName => *name = Cell::Blank,
        Fault::WrittenPrice => *price = text("1.234,56 €"),
        Fault::NegativePrice => *price = Cell::Number(-9.99),
        Fault::HalfStock => *stock = Cell::Number(0.5),
        Fault::NegativeStock => *stock = Cell::Number(-3.0),
        Fault::LostEan => *ean = text("4.00638E+12"),
        Fault::LostCode => *code = text("7.92E+12"),
        Fault::ImpossibleDate => *updated_at = text("2026-02-30"),
        Fault::DuplicateCode => *code = Cell::Text(first_code),
        Fault::HugePrice => *price = Cell::Number(1e15),
        Fault::WrittenWeight => *weight = text("about 2 kg"),
        Fault::ErrorPrice => *price = Cell::Error,
        Fault::Three => {
            *name = Cell::Blank;
            *price = Cell::Number(-1.0);
            *stock = Cell::Number(0.5);
        }
    }
}
