//! The columns a product file may have, and the headers by which they are known.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::header::fold;
use super::header_map::HeaderMap;

/// A known column of a product file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// The product's own key; required.
    Code,
    /// The product's name; required.
    Name,
    /// Free text.
    Description,
    /// The maker.
    Brand,
    /// The category.
    Category,
    /// The price.
    Price,
    /// The currency of the price.
    Currency,
    /// Pieces in stock.
    Stock,
    /// The bar code.
    Ean,
    /// The product's page.
    Url,
    /// The weight.
    Weight,
    /// When the source last changed the product.
    UpdatedAt,
}

impl Field {
    /// Every field, in the order of the documentation.
    pub const ALL: [Self; 12] = [
        Self::Code,
        Self::Name,
        Self::Description,
        Self::Brand,
        Self::Category,
        Self::Price,
        Self::Currency,
        Self::Stock,
        Self::Ean,
        Self::Url,
        Self::Weight,
        Self::UpdatedAt,
    ];

    /// The fields without which a file is refused.
    pub const REQUIRED: [Self; 2] = [Self::Code, Self::Name];

    /// Returns the field's own name, which is also its first header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Name => "name",
            Self::Description => "description",
            Self::Brand => "brand",
            Self::Category => "category",
            Self::Price => "price",
            Self::Currency => "currency",
            Self::Stock => "stock",
            Self::Ean => "ean",
            Self::Url => "url",
            Self::Weight => "weight",
            Self::UpdatedAt => "updated_at",
        }
    }

    /// Returns the field of a name as in [`Field::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// Returns the built-in headers beside the field's name: English, German, French, Spanish,
    /// Italian, Dutch, Portuguese, Polish, Czech, Swedish and Russian.
    ///
    /// Case, accents, spaces and punctuation do not matter. No header stands for two fields; a
    /// word with two meanings (*Artikel*, *reference*, *nom*) stands where product files use it.
    pub fn aliases(self) -> impl Iterator<Item = &'static str> {
        let aliases = match self {
            Self::Code => CODE,
            Self::Name => NAME,
            Self::Description => DESCRIPTION,
            Self::Brand => BRAND,
            Self::Category => CATEGORY,
            Self::Price => PRICE,
            Self::Currency => CURRENCY,
            Self::Stock => STOCK,
            Self::Ean => EAN,
            Self::Url => URL,
            Self::Weight => WEIGHT,
            Self::UpdatedAt => UPDATED_AT,
        };
        aliases.split('|').map(str::trim)
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

const CODE: &str = "\
    product code | item code | article code | sku | part number | part no | item number | \
    item no | product number | product id | article number | article no | reference | \
    Artikelnummer | Artikelnr | Artikel-Nr | Art.-Nr. | Produktnummer | Bestellnummer | \
    code produit | code article | référence produit | código | código de producto | \
    referencia | codice | codice prodotto | codice articolo | productcode | codigo do produto | \
    referência | kod | kod produktu | indeks | kód | kód produktu | artikelkod | код | \
    артикул | код товара";
const NAME: &str = "\
    product name | item name | article name | title | product title | Bezeichnung | \
    Artikelbezeichnung | Artikelname | Produktname | Titel | nom | nom du produit | \
    désignation | libellé | intitulé | nombre | nombre del producto | nome | nome prodotto | \
    nome do produto | naam | productnaam | nazwa | nazwa produktu | název | název produktu | \
    namn | produktnamn | название | наименование | имя";
const DESCRIPTION: &str = "\
    product description | long description | Beschreibung | Produktbeschreibung | \
    description du produit | descripción | descrizione | omschrijving | beschrijving | \
    descrição | opis | popis | beskrivning | описание";
const BRAND: &str = "\
    brand name | manufacturer | maker | Marke | Hersteller | marque | fabricant | marca | \
    fabricante | produttore | merk | fabrikant | marka | producent | značka | výrobce | \
    varumärke | tillverkare | бренд | марка | производитель";
const CATEGORY: &str = "\
    product category | product group | Kategorie | Warengruppe | Produktgruppe | catégorie | \
    famille | categoría | categoria | categorie | productgroep | kategoria | kategori | \
    категория";
const PRICE: &str = "\
    unit price | list price | retail price | sales price | net price | Preis | Einzelpreis | \
    Verkaufspreis | Listenpreis | VK | prix | prix unitaire | precio | prezzo | prijs | preço | \
    cena | pris | цена";
const CURRENCY: &str = "\
    currency code | Währung | Waehrung | devise | monnaie | moneda | divisa | valuta | moeda | \
    waluta | měna | валюта";
const STOCK: &str = "\
    stock quantity | quantity | qty | on hand | stock level | inventory | Bestand | \
    Lagerbestand | Menge | Anzahl | quantité | existencias | cantidad | quantità | giacenza | \
    scorta | voorraad | aantal | estoque | quantidade | stan | stan magazynowy | ilość | \
    sklad | skladem | množství | lager | lagersaldo | antal | остаток | количество";
const EAN: &str = "\
    ean code | ean13 | ean-13 | gtin | gtin13 | gtin-13 | barcode | bar code | upc | \
    Strichcode | EAN-Code | code barres | code à barres | código de barras | codice a barre | \
    streepjescode | kod kreskowy | čárový kód | streckkod | штрихкод";
const URL: &str = "\
    link | product url | product link | product page | web page | website | web address | \
    Produktlink | Produkt-URL | lien | enlace | collegamento | odkaz | länk | ссылка";
const WEIGHT: &str = "\
    net weight | gross weight | weight kg | weight (kg) | weight g | Gewicht | Gewicht (kg) | \
    poids | peso | waga | hmotnost | vikt | вес";
const UPDATED_AT: &str = "\
    updated | last updated | last update | modified | last modified | modified at | \
    changed at | update date | Änderungsdatum | geändert am | aktualisiert am | \
    zuletzt geändert | date de mise à jour | mis à jour le | modifié le | \
    fecha de actualización | actualizado | data aggiornamento | aggiornato il | bijgewerkt op | \
    data de atualização | atualizado em | data aktualizacji | aktualizováno | uppdaterad | \
    обновлено | дата обновления";

/// The fields a file has, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FieldSet(u16);

impl FieldSet {
    /// Adds a field.
    pub fn insert(&mut self, field: Field) {
        self.0 |= field.bit();
    }

    /// Whether the file has the field.
    #[must_use]
    pub fn contains(self, field: Field) -> bool {
        self.0 & field.bit() != 0
    }

    /// Returns the bits; stored in hashes, so the order of [`Field`]'s variants never changes.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }
}

/// How well a header says which field it is; better ones win over worse ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// What somebody says of this file.
    Asked,
    /// The field's own name.
    Name,
    /// An alias from the configuration.
    Configured,
    /// A built-in alias.
    BuiltIn,
}

/// Every header that stands for a field, folded.
#[derive(Debug)]
pub struct Aliases {
    by_header: HashMap<String, (Field, Rank)>,
}

impl Aliases {
    /// Builds the table from the built-in aliases and the configured ones.
    ///
    /// `configured` maps field names to lists of headers; a configured header takes itself from
    /// the field that had it built in, and names of no field are passed over.
    #[must_use]
    pub fn new(configured: &BTreeMap<String, Vec<String>>) -> Self {
        let mut by_header = HashMap::new();
        for field in Field::ALL {
            for alias in field.aliases() {
                by_header.insert(fold(alias), (field, Rank::BuiltIn));
            }
        }
        for (name, headers) in configured {
            let Some(field) = Field::from_name(name) else {
                continue;
            };
            for header in headers {
                by_header.insert(fold(header), (field, Rank::Configured));
            }
        }
        for field in Field::ALL {
            by_header.insert(fold(field.name()), (field, Rank::Name));
        }
        Self { by_header }
    }

    /// Returns the table with what somebody says of one file, which counts before all else.
    #[must_use]
    pub fn with(mut self, map: &HeaderMap) -> Self {
        for (header, field) in map.entries() {
            match field {
                Some(field) => self
                    .by_header
                    .insert(header.to_owned(), (field, Rank::Asked)),
                None => self.by_header.remove(header),
            };
        }
        self
    }

    /// Returns the field that a folded header stands for.
    #[must_use]
    pub fn find(&self, folded: &str) -> Option<(Field, Rank)> {
        self.by_header.get(folded).copied()
    }

    /// Returns every folded header of a field.
    pub fn of(&self, field: Field) -> impl Iterator<Item = &str> {
        self.by_header
            .iter()
            .filter(move |(_, (of, _))| *of == field)
            .map(|(header, _)| header.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_built_in_header_stands_for_two_fields() {
        let mut seen: HashMap<String, Field> = HashMap::new();
        for field in Field::ALL {
            for alias in field.aliases().chain([field.name()]) {
                let folded = fold(alias);
                assert!(!folded.is_empty(), "{alias}");
                if let Some(other) = seen.insert(folded, field) {
                    assert_eq!(other, field, "{alias} stands for two fields");
                }
            }
        }
    }

    #[test]
    fn a_configured_header_wins_over_a_built_in_one() {
        let configured = BTreeMap::from([
            ("ean".to_owned(), vec!["Artikel-Nr.".to_owned()]),
            ("nonsense".to_owned(), vec!["x".to_owned()]),
        ]);
        let aliases = Aliases::new(&configured);
        assert_eq!(
            aliases.find("artikelnr"),
            Some((Field::Ean, Rank::Configured))
        );
        assert_eq!(aliases.find("x"), None);
    }

    #[test]
    fn the_names_of_fields_cannot_be_taken_away() {
        let configured = BTreeMap::from([("name".to_owned(), vec!["Code".to_owned()])]);
        let aliases = Aliases::new(&configured);
        assert_eq!(aliases.find("code"), Some((Field::Code, Rank::Name)));
    }

    #[test]
    fn bits_are_stored_and_never_move() {
        let mut set = FieldSet::default();
        set.insert(Field::Code);
        set.insert(Field::UpdatedAt);
        assert_eq!(set.bits(), 1 | 1 << 11);
        assert!(set.contains(Field::Code) && !set.contains(Field::Name));
    }
}
