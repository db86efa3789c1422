-- Writes what a gateway holds and has used of one name, and decides whether it may hold more beside all others.
-- KEYS: what is held, what was used today, the bucket of requests; all of one name.
-- ARGV: gateway, milliseconds after which it counts as gone, jobs, streams, seconds and characters that it holds, seconds and
--       characters that it used today, what it asks for (0 nothing, 1 a job, 2 a stream, 3 seconds, 4 characters), how much, the
--       limit (below 0: none), requests a minute (0: none is asked for)
-- Returns: 0 granted, 1 too many requests, 2 no more of it; what is left in the bucket; seconds and characters that others used.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local gateway, ttl = ARGV[1], tonumber(ARGV[2])
local own = {tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])}
local spent = {tonumber(ARGV[7]), tonumber(ARGV[8])}
local ask, amount, limit = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local rate = tonumber(ARGV[12])

local held, all = {0, 0, 0, 0}, redis.call('HGETALL', KEYS[1])
for at = 1, #all, 2 do
  if all[at] ~= gateway then
    local part = {}
    for number in string.gmatch(all[at + 1], '%S+') do part[#part + 1] = tonumber(number) end
    if part[1] <= now then
      redis.call('HDEL', KEYS[1], all[at])
    else
      for nth = 1, 4 do held[nth] = held[nth] + part[nth + 1] end
    end
  end
end
local used = {0, 0}
all = redis.call('HGETALL', KEYS[2])
for at = 1, #all, 2 do
  if all[at] ~= gateway then
    local audio, characters = string.match(all[at + 1], '(%S+) (%S+)')
    used = {used[1] + tonumber(audio), used[2] + tonumber(characters)}
  end
end

local outcome, left = 0, 0
if rate > 0 then
  local bucket = redis.call('HMGET', KEYS[3], 'left', 'at')
  left = rate
  if bucket[1] then
    left = math.min(rate, tonumber(bucket[1]) + math.max(0, now - tonumber(bucket[2])) * rate / 60000)
  end
  if left < 1 then outcome = 1 else left = left - 1 end
  redis.call('HSET', KEYS[3], 'left', string.format('%.17g', left), 'at', string.format('%.0f', now))
  redis.call('PEXPIRE', KEYS[3], 120000)
end
if outcome == 0 and ask > 0 then
  local total, before = held[ask] + own[ask] + amount, 0
  if ask > 2 then before = used[ask - 2] + spent[ask - 2] end
  -- What is used up takes nothing more, not even work of unknown length.
  if limit >= 0 and (total + before > limit or (ask > 2 and before >= limit)) then
    outcome = 2
  else
    own[ask] = own[ask] + amount
  end
end

if own[1] + own[2] + own[3] + own[4] > 0 then
  redis.call('HSET', KEYS[1], gateway,
    string.format('%.0f %.0f %.0f %.17g %.17g', now + ttl, own[1], own[2], own[3], own[4]))
  redis.call('PEXPIRE', KEYS[1], ttl * 2)
else
  redis.call('HDEL', KEYS[1], gateway)
end
if spent[1] + spent[2] > 0 then
  redis.call('HSET', KEYS[2], gateway, string.format('%.17g %.17g', spent[1], spent[2]))
  redis.call('EXPIRE', KEYS[2], 172800)
end
return {outcome, string.format('%.17g', left), string.format('%.17g', used[1]), string.format('%.17g', used[2])}
