//! What a package says about its model to people.

use std::collections::BTreeMap;

use crate::proto;

/// What a package says about its model to people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelInfo {
    /// What it is.
    pub short_description: String,
    /// Version of the model.
    pub version: String,
    /// Who made it.
    pub author: String,
    /// Its licence.
    pub license: String,
    /// Anything else, by key.
    pub user_defined: BTreeMap<String, String>,
    /// What inputs and outputs are, by name; names that the model does not have are left out when it is written.
    pub feature_descriptions: BTreeMap<String, String>,
}

impl ModelInfo {
    pub(crate) fn read(description: &proto::ModelDescription) -> Self {
        let metadata = description.metadata.clone().unwrap_or_default();
        let features = description.input.iter().chain(&description.output);
        let described = features.filter(|f| !f.short_description.is_empty());
        ModelInfo {
            short_description: metadata.short_description,
            version: metadata.version_string,
            author: metadata.author,
            license: metadata.license,
            user_defined: metadata.user_defined,
            feature_descriptions: described
                .map(|f| (f.name.clone(), f.short_description.clone()))
                .collect(),
        }
    }

    pub(crate) fn metadata(&self) -> proto::Metadata {
        proto::Metadata {
            short_description: self.short_description.clone(),
            version_string: self.version.clone(),
            author: self.author.clone(),
            license: self.license.clone(),
            user_defined: self.user_defined.clone(),
        }
    }

    pub(crate) fn feature_description(&self, name: &str) -> String {
        self.feature_descriptions
            .get(name)
            .cloned()
            .unwrap_or_default()
    }
}
