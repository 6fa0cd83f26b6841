use super::*;

fn to_slice<T: Serialize>(value: &T, to: &mut [u8]) -> Result<usize, NotEncoded> {
    super::to_slice(value, to, NESTING)
}

fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, NotEncoded> {
    super::to_vec(value, NESTING)
}

fn from_slice<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, String> {
    super::from_slice(bytes, NESTING)
}
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[test]
fn a_number_is_no_longer_than_in_postcard() {
    let mut room = [0; 16];
    assert_eq!(to_slice(&5u64, &mut room).unwrap(), 1);
    assert_eq!(to_slice(&u64::MAX, &mut room).unwrap(), 10);
    assert_eq!(to_slice(&"abc", &mut room).unwrap(), 4);
    assert!(matches!(to_slice(&"abc", &mut room[..3]), Err(NotEncoded::NoRoom)));
}

#[test]
fn names_in_another_case_have_the_same_mark() {
    assert_eq!(mark("FirstOfAll"), mark("firstOfAll"));
    assert_eq!(mark("FirstOfAll"), mark("FIRST_OF_ALL"));
    assert_eq!(mark("FirstOfAll"), mark("first-of-all"));
    assert_ne!(mark("FirstOfAll"), mark("FirstOfTwo"));
    assert_ne!(mark("A"), mark("B"));
    assert_ne!(mark("Ä"), mark("Ö"));
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf(Option<String>),
    Branch { left: Box<Tree>, right: Box<Tree> },
    Many(Vec<(u32, i64)>, std::collections::BTreeMap<String, f64>),
    Empty,
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        any::<Option<String>>().prop_map(Tree::Leaf),
        (any::<Vec<(u32, i64)>>(), proptest::collection::btree_map(any::<String>(), -1e9..1e9, 0..4))
            .prop_map(|(list, map)| Tree::Many(list, map)),
        Just(Tree::Empty),
    ];
    leaf.prop_recursive(4, 16, 2, |inner| {
        (inner.clone(), inner).prop_map(|(left, right)| Tree::Branch { left: left.into(), right: right.into() })
    })
}

proptest! {
    #[test]
    fn values_come_back_as_they_were(tree in tree()) {
        let bytes = to_vec(&tree).unwrap();
        prop_assert_eq!(from_slice::<Tree>(&bytes), Ok(tree.clone()));
        let mut room = vec![0; bytes.len()];
        prop_assert_eq!(to_slice(&tree, &mut room).unwrap(), bytes.len());
        prop_assert_eq!(&room, &bytes);
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(bytes: Vec<u8>) {
        let _ = from_slice::<Tree>(&bytes);
        let _ = from_slice::<Vec<Result<u8, String>>>(&bytes);
        let _ = from_slice::<(f32, char, bool, [u16; 3])>(&bytes);
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Chain {
    End,
    Newtype(Box<Chain>),
    Tuple(u8, Box<Chain>),
    Struct { next: Box<Chain> },
    List(Vec<Chain>),
    Option(Option<Box<Chain>>),
    Map(std::collections::BTreeMap<u8, Chain>),
    Pair((u8, Box<Chain>)),
}

#[test]
fn each_kind_of_value_with_values_in_it_is_a_level() {
    type Link = fn(Chain) -> Chain;
    let kinds: [(Link, u32); 7] = [
        (|next| Chain::Newtype(Box::new(next)), 1),
        (|next| Chain::Tuple(1, Box::new(next)), 1),
        (|next| Chain::Struct { next: Box::new(next) }, 1),
        (|next| Chain::List(vec![next]), 2),
        (|next| Chain::Option(Some(Box::new(next))), 2),
        (|next| Chain::Map([(1, next)].into()), 2),
        (|next| Chain::Pair((1, Box::new(next))), 2),
    ];
    for (link, levels) in kinds {
        let chain = (0..10).fold(Chain::End, |chain, _| link(chain));
        let bytes = super::to_vec(&chain, 10 * levels).unwrap();
        assert_eq!(super::from_slice::<Chain>(&bytes, 10 * levels).unwrap(), chain);
        let refused = super::from_slice::<Chain>(&bytes, 10 * levels - 1).unwrap_err();
        assert!(refused.contains(&format!("more than {} levels", 10 * levels - 1)), "{refused}");
        let NotEncoded::Because(reason) = super::to_vec(&chain, 10 * levels - 1).unwrap_err() else { panic!() };
        assert_eq!(reason, refused);
        // What lies beside each other is not nested.
        let wide: Vec<_> = (0..100).map(|_| link(Chain::End)).collect();
        let bytes = super::to_vec(&wide, 1 + levels).unwrap();
        assert_eq!(super::from_slice::<Vec<Chain>>(&bytes, 1 + levels).unwrap(), wide);
    }
}
