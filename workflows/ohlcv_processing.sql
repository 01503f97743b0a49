WITH numbers AS (
  SELECT
    k.open_time AS open_time,
    k.close_time AS close_time,
    k.trades AS trades,
    CAST(k.open AS DOUBLE) AS o,
    CAST(k.high AS DOUBLE) AS h,
    CAST(k.low AS DOUBLE) AS l,
    CAST(k.close AS DOUBLE) AS c,
    CAST(k.volume AS DOUBLE) AS v,
    CAST(k.quote_volume AS DOUBLE) AS q,
    CAST(k.taker_buy_base_volume AS DOUBLE) AS tb,
    CAST(k.taker_buy_quote_volume AS DOUBLE) AS tq
  FROM binance_ohlcv k
  WHERE k.symbol = '$${Ssymbol}$$'
    AND k.interval = '$${Sinterval}$$'
    AND k.is_closed = 1
    AND k.open_time >= $${Ssince_ms}$$ - 20 * $${Sstep_ms}$$
    AND k.open_time < $${Suntil_ms}$$
),
judged AS (
  SELECT
    open_time, h, l, c, v,
    CASE
      WHEN o IS NULL OR h IS NULL OR l IS NULL OR c IS NULL OR v IS NULL OR q IS NULL
        OR tb IS NULL OR tq IS NULL OR close_time IS NULL OR trades IS NULL THEN 1
      WHEN (open_time - CASE WHEN $${Sstep_ms}$$ = 604800000 THEN 345600000 ELSE 0 END)
        % $${Sstep_ms}$$ <> 0 THEN 2
      WHEN close_time < open_time OR close_time >= open_time + $${Sstep_ms}$$ THEN 3
      WHEN o <= 0 OR h <= 0 OR l <= 0 OR c <= 0 THEN 4
      WHEN v < 0 OR q < 0 OR tb < 0 OR tq < 0 OR trades < 0 THEN 5
      WHEN h < o * 0.999999999999 OR h < l * 0.999999999999 OR h < c * 0.999999999999 THEN 6
      WHEN l * 0.999999999999 > o OR l * 0.999999999999 > c THEN 7
      WHEN tb * 0.999999999999 > v THEN 8
      ELSE 0
    END AS fault
  FROM numbers n
),
fives AS (
  SELECT
    open_time, h, l, c, v, fault,
    LAG(open_time, 1) OVER w AS time_1,
    LAG(open_time, 19) OVER w AS time_19,
    LAG(c, 1) OVER w AS c_1,
    c + LAG(c, 1) OVER w + LAG(c, 2) OVER w + LAG(c, 3) OVER w + LAG(c, 4) OVER w AS c5,
    v + LAG(v, 1) OVER w + LAG(v, 2) OVER w + LAG(v, 3) OVER w + LAG(v, 4) OVER w AS v5,
    MAX(h) OVER (w ROWS BETWEEN 19 PRECEDING AND CURRENT ROW) AS h20,
    MIN(l) OVER (w ROWS BETWEEN 19 PRECEDING AND CURRENT ROW) AS l20
  FROM judged j
  WINDOW w AS (PARTITION BY CASE WHEN fault = 0 THEN 0 ELSE 1 END ORDER BY open_time)
),
windows AS (
  SELECT
    open_time, h, l, c, v, fault, c_1, h20, l20,
    c5 + LAG(c5, 5) OVER w + LAG(c5, 10) OVER w + LAG(c5, 15) OVER w AS c20,
    v5 + LAG(v5, 5) OVER w + LAG(v5, 10) OVER w + LAG(v5, 15) OVER w AS v20,
    CASE WHEN fault = 0 AND open_time - time_1 = $${Sstep_ms}$$ THEN 1 ELSE 0 END AS joined,
    CASE WHEN fault = 0 AND open_time - time_19 = 19 * $${Sstep_ms}$$ THEN 1 ELSE 0 END AS whole
  FROM fives f
  WINDOW w AS (PARTITION BY CASE WHEN fault = 0 THEN 0 ELSE 1 END ORDER BY open_time)
)
SELECT
  CAST($${Sbatch_id}$$ AS SIGNED INTEGER) AS batch_id,
  CAST(k.symbol AS CHAR) AS symbol,
  CAST(k.interval AS CHAR) AS bar_interval,
  CAST(k.open_time AS SIGNED INTEGER) AS open_time,
  CAST(k.close_time AS SIGNED INTEGER) AS close_time,
  CAST(k.open AS CHAR) AS open,
  CAST(k.high AS CHAR) AS high,
  CAST(k.low AS CHAR) AS low,
  CAST(k.close AS CHAR) AS close,
  CAST(k.volume AS CHAR) AS volume,
  CAST(k.quote_volume AS CHAR) AS quote_volume,
  CAST(k.taker_buy_base_volume AS CHAR) AS taker_buy_base_volume,
  CAST(k.taker_buy_quote_volume AS CHAR) AS taker_buy_quote_volume,
  CAST(k.trades AS SIGNED INTEGER) AS trades,
  CAST(k.batch_id AS SIGNED INTEGER) AS source_batch_id,
  CAST(CASE WHEN w.whole = 1 THEN w.c20 / 20 END AS DOUBLE) AS sma_20,
  CAST(CASE WHEN w.whole = 1 THEN w.h20 END AS DOUBLE) AS high_20,
  CAST(CASE WHEN w.whole = 1 THEN w.l20 END AS DOUBLE) AS low_20,
  CAST(CASE WHEN w.whole = 1 THEN w.v20 END AS DOUBLE) AS volume_20,
  CAST(CASE WHEN w.fault = 0 THEN w.h END AS DOUBLE) AS high_d,
  CAST(CASE WHEN w.fault = 0 THEN w.l END AS DOUBLE) AS low_d,
  CAST(CASE WHEN w.fault = 0 THEN w.c END AS DOUBLE) AS close_d,
  CAST(CASE WHEN w.fault = 0 AND w.v > 0 THEN w.v END AS DOUBLE) AS volume_d,
  CAST(CASE WHEN w.fault = 0 THEN CAST(k.quote_volume AS DOUBLE) END AS DOUBLE) AS quote_d,
  CAST(CASE WHEN w.fault = 0 THEN CAST(k.taker_buy_base_volume AS DOUBLE) END AS DOUBLE) AS taker_d,
  CAST(CASE WHEN w.joined = 1 THEN w.c_1 END AS DOUBLE) AS prev_close,
  CAST(CASE WHEN k.close_time < k.open_time + $${Sstep_ms}$$ - 1 THEN 1 ELSE 0 END AS SIGNED INTEGER) AS early,
  CAST(w.fault AS SIGNED INTEGER) AS fault,
  CAST(CASE WHEN w.open_time >= $${Ssince_ms}$$ THEN 'yes' ELSE 'no' END AS CHAR) AS in_range
FROM windows w
JOIN binance_ohlcv k
  ON k.symbol = '$${Ssymbol}$$' AND k.interval = '$${Sinterval}$$' AND k.open_time = w.open_time
