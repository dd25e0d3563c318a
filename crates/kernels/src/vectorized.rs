//! Plain loops compiled once per instruction set.

/// Declares a function whose body the compiler vectorises for every instruction set; its hidden first argument is the
/// [`Isa`](crate::simd::Isa) to use. Products and sums are not contracted, so all instruction sets give the same numbers.
macro_rules! vectorized {
    ($(#[$doc:meta])* fn $name:ident<$l:lifetime>($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        vectorized! { $(#[$doc])* fn $name<$l>($($arg: $ty),*) -> () $body }
    };
    ($(#[$doc:meta])* fn $name:ident<$l:lifetime>($($arg:ident: $ty:ty),* $(,)?) -> $ret:ty $body:block) => {
        $(#[$doc])*
        fn $name<$l>(isa: $crate::simd::Isa, $($arg: $ty),*) -> $ret {
            struct Arguments<$l> {
                $($arg: $ty),*
            }
            impl<$l> $crate::simd::Kernel for Arguments<$l> {
                type Output = $ret;

                #[inline(always)]
                fn run<S: $crate::simd::Simd>(self, _: S) -> $ret {
                    let Arguments { $($arg),* } = self;
                    $body
                }
            }
            isa.dispatch(Arguments { $($arg),* })
        }
    };
}
pub(crate) use vectorized;

/// Numbers of one job of an element-wise loop; fewer run on the calling thread, since waking another costs as much.
pub(crate) const CHUNK: usize = 1 << 15;
