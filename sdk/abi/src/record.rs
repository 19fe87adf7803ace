//! Records: structures whose every octet is agreed upon.

/// Defines a record: the structure, its description, what it looks like in a plugin's memory, and
/// the proof that both agree.
macro_rules! record {
    (
        $(#[doc = $about:literal])*
        pub struct $name:ident, $size:literal octets {
            $($(#[doc = $doc:literal])* $offset:literal => $field:ident: $kind:ty,)*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[repr(C, align(8))]
        pub struct $name {
            $($(#[doc = $doc])* pub $field: $kind,)*
        }

        const _: () = {
            assert!(size_of::<$name>() == $size);
            $(assert!(core::mem::offset_of!($name, $field) == $offset);)*
        };

        impl $name {
            /// Octets of one record.
            pub const SIZE: usize = $size;

            /// The record's description.
            pub const DESCRIPTION: $crate::description::Record = $crate::description::Record {
                name: stringify!($name),
                size: $size,
                about: concat!($($about),*),
                fields: &[$($crate::description::Field {
                    name: stringify!($field),
                    kind: <$kind as $crate::record::Scalar>::KIND,
                    offset: $offset,
                    about: concat!($($doc),*),
                },)*],
            };

            /// The record as it stands in a plugin's memory.
            #[inline]
            #[must_use]
            pub fn to_octets(&self) -> [u8; Self::SIZE] {
                let mut octets = [0; Self::SIZE];
                $($crate::record::Scalar::write(self.$field, &mut octets[$offset..]);)*
                octets
            }

            /// The record that stands in a plugin's memory.
            #[inline]
            #[must_use]
            pub fn from_octets(octets: &[u8; Self::SIZE]) -> Self {
                Self { $($field: $crate::record::Scalar::read(&octets[$offset..]),)* }
            }
        }
    };
}

pub(crate) use record;

use crate::description::Kind;

/// What a field of a record can be.
pub(crate) trait Scalar: Sized {
    /// Its kind.
    const KIND: Kind;

    /// Writes it to the start of `octets`, which are long enough.
    fn write(self, octets: &mut [u8]);

    /// Reads it from the start of `octets`, which are long enough.
    fn read(octets: &[u8]) -> Self;
}

macro_rules! integer {
    ($type:ty, $kind:ident) => {
        impl Scalar for $type {
            const KIND: Kind = Kind::$kind;

            #[inline]
            fn write(self, octets: &mut [u8]) {
                octets[..size_of::<Self>()].copy_from_slice(&self.to_le_bytes());
            }

            #[inline]
            fn read(octets: &[u8]) -> Self {
                let mut own = [0; size_of::<Self>()];
                own.copy_from_slice(&octets[..size_of::<Self>()]);
                Self::from_le_bytes(own)
            }
        }
    };
}

integer!(u8, U8);
integer!(u16, U16);
integer!(u32, U32);
integer!(u64, U64);

impl Scalar for [u8; 16] {
    const KIND: Kind = Kind::Address;

    #[inline]
    fn write(self, octets: &mut [u8]) {
        octets[..16].copy_from_slice(&self);
    }

    #[inline]
    fn read(octets: &[u8]) -> Self {
        let mut own = [0; 16];
        own.copy_from_slice(&octets[..16]);
        own
    }
}
