-- Says that a gateway is alive, and which others are.
--
-- KEYS: that of this gateway, those of others. ARGV: how long this sign of life counts, milliseconds.
-- Returns 1 or 0 for each of the others.
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
local alive = {}
for at = 2, #KEYS do
  alive[at - 1] = redis.call('EXISTS', KEYS[at])
end
return alive
