;; my-scheduler: weighted least connections.
;;
;; Each new connection goes to the server with the least load for its weight, of equals to the first
;; in the order of the configuration. An active connection counts as 256 inactive ones.
;;
;; The memory, one page of 64 KiB:
;;
;;       8  the request, 64 octets
;;    1024  the servers, 32 octets each, up to the end: 2016 of them

(module
  (memory (export "memory") 1)

  ;; The contract's version: 1.0.
  (func (export "wvs_abi") (result i32)
    (i32.const 0x00010000))

  ;; Where the director may write `size` octets of a kind; 0 where there are none. A plugin that
  ;; takes a configuration or keeps a state has more kinds.
  (func (export "wvs_region") (param $kind i32) (param $size i32) (result i32)
    (if (i32.eq (local.get $kind) (i32.const 1)) ;; the request
      (then
        (if (i32.le_u (local.get $size) (i32.const 64))
          (then (return (i32.const 8))))))
    (if (i32.eq (local.get $kind) (i32.const 2)) ;; the servers
      (then
        (if (i32.le_u (local.get $size) (i32.const 64512)) ;; 2016 of 32 octets
          (then (return (i32.const 1024))))))
    (i32.const 0))

  ;; Active connections times 256, and the inactive ones.
  (func $load (param $server i32) (result i64)
    (i64.add
      (i64.mul (i64.load32_u offset=8 (local.get $server)) (i64.const 256))
      (i64.load32_u offset=12 (local.get $server))))

  (func (export "wvs_schedule") (param $n i32) (result i32)
    (local $index i32)
    (local $server i32)
    (local $load i64)
    (local $weight i64)
    (local $best i32)
    (local $least_load i64)
    (local $least_weight i64)
    (local.set $best (i32.const -1)) ;; no server
    ;; Stands for an infinite load: any load on any weight above 0 is less, and weight 0 never.
    (local.set $least_load (i64.const 1))
    (local.set $least_weight (i64.const 0))
    (local.set $server (i32.const 1024))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $index) (local.get $n)))
        (local.set $load (call $load (local.get $server)))
        (local.set $weight (i64.load32_u offset=4 (local.get $server)))
        ;; Nothing is divided: a / b < c / d is compared as a * d < c * b. No product overflows,
        ;; since a load stays below 2^41 and a weight below 2^16.
        (if (i64.lt_u
              (i64.mul (local.get $load) (local.get $least_weight))
              (i64.mul (local.get $least_load) (local.get $weight)))
          (then
            (local.set $best (local.get $index))
            (local.set $least_load (local.get $load))
            (local.set $least_weight (local.get $weight))))
        (local.set $index (i32.add (local.get $index) (i32.const 1)))
        (local.set $server (i32.add (local.get $server) (i32.const 32)))
        (br $next)))
    (local.get $best))
)
