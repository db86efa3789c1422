-- The records that changed since a gateway asked last, and what to ask with next.
--
-- KEYS: changes (sorted set: id by number of its last change), records (hash), epoch.
-- ARGV: the last change that is known, the epoch it is of, an epoch if there is none yet, the most records.
-- Returns the epoch, the last change, and pairs of id and record, which is nil once it was removed.
local epoch = redis.call('GET', KEYS[3])
if not epoch then
  epoch = ARGV[3]
  redis.call('SET', KEYS[3], epoch)
end
local last = epoch == ARGV[2] and ARGV[1] or '0'
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. last, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[4])
local changed = {}
for at = 1, #found, 2 do
  changed[#changed + 1] = {found[at], redis.call('HGET', KEYS[2], found[at])}
  last = found[at + 1]
end
return {epoch, last, changed}
