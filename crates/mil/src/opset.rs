//! Operation sets: which operations a program may use, and the specification version and systems that go with them.
//!
//! Source: coremltools' `_OPSET` and `_SPECIFICATION_VERSION_*` tables, checked by loading one program at each.

use std::fmt;

macro_rules! opsets {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $spec:literal, $ios:literal, $macos:literal;)*) => {
        /// An operation set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Opset { $($(#[$doc])* $variant),* }

        impl Opset {
            /// Every operation set, oldest first.
            pub const ALL: &[Opset] = &[$(Opset::$variant),*];

            /// The string in `Function.opset`.
            pub fn name(self) -> &'static str {
                match self { $(Opset::$variant => $name),* }
            }

            /// `Model.specificationVersion` of programs with this set.
            pub fn specification_version(self) -> i32 {
                match self { $(Opset::$variant => $spec),* }
            }

            /// The iOS target that brought it, as in the text form.
            pub fn ios(self) -> &'static str {
                match self { $(Opset::$variant => $ios),* }
            }

            /// The macOS target that brought it.
            pub fn macos(self) -> &'static str {
                match self { $(Opset::$variant => $macos),* }
            }
        }
    };
}

opsets! {
    /// iOS 15, macOS 12.
    CoreMl5 = "CoreML5", 6, "ios15", "macos12";
    /// iOS 16, macOS 13: `fp16` inputs and outputs.
    CoreMl6 = "CoreML6", 7, "ios16", "macos13";
    /// iOS 17, macOS 14.
    CoreMl7 = "CoreML7", 8, "ios17", "macos14";
    /// iOS 18, macOS 15: native attention, state, several functions.
    CoreMl8 = "CoreML8", 9, "ios18", "macos15";
    /// iOS 26, macOS 26.
    CoreMl9 = "CoreML9", 10, "ios26", "macos26";
}

impl Opset {
    /// The set with this name, its name in the text form, or its macOS target.
    pub fn parse(text: &str) -> Option<Opset> {
        Self::ALL
            .iter()
            .copied()
            .find(|o| [o.name(), o.ios(), o.macos()].contains(&text))
    }

    /// The set that goes with a specification version.
    pub fn from_specification_version(version: i32) -> Option<Opset> {
        Self::ALL
            .iter()
            .copied()
            .find(|o| o.specification_version() == version)
    }
}

impl fmt::Display for Opset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
