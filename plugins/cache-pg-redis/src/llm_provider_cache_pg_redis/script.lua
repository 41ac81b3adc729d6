-- One key's buckets and cooldown in Redis, changed by one process at a time, by the time of Redis' own clock.
--
-- KEYS[1] the key. ARGV[1] JSON: rates [[capacity, units a second], ...]; chores [["t", amounts], ["c", seen, seconds
-- or 0], ["p", seen], ...] to be done first; held: amounts that were taken already for one who waits for their time,
-- with ripe: whether that has come; queue: [amounts, ...] of those behind.
--
-- Gives {1 where the held one may go, how many of the queue may go, seconds that the one who waits still has to, 1 where
-- there is one, seconds of the cooldown, its generation, its streak}; figures with fractions as texts.
local LONGEST, FIRST, UNLIMITED, KEPT = 60, 1, 1e12, 3600

local ask = cjson.decode(ARGV[1])
local rates = ask.rates
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local generation, streak, till, since = 0, 0, 0, 0
local stored = {}

local raw = redis.pcall('GET', KEYS[1])
if type(raw) == 'string' then
  local found = {}
  for word in string.gmatch(raw, '%S+') do
    local figure = tonumber(word)
    if figure == nil or figure ~= figure or figure > 1e300 or figure < -1e300 then found = {} break end
    found[#found + 1] = figure
  end
  -- The version of this form, when it was written, the cooldown, and of each bucket its level and when that was so.
  if #found >= 6 and found[1] == 1 then
    generation, streak, till, since = found[3], found[4], found[5], found[6]
    for at = 7, #found, 2 do stored[#stored + 1] = {found[at], found[at + 1] or found[2]} end
  end
end

-- Who knows no limit of a bucket takes none away from those who do: it stays as they left it, its time with it.
local levels, aside = {}, {}
for at, rate in ipairs(rates) do
  local old = stored[at]
  levels[at] = rate[1]
  if old and rate[1] == UNLIMITED then
    aside[at] = old
  elseif old then
    levels[at] = math.min(rate[1], old[1] + math.max(0, now - old[2]) * rate[2])
  end
end

local function take(amounts, sign)
  for at, rate in ipairs(rates) do levels[at] = math.min(rate[1], levels[at] - sign * (amounts[at] or 0)) end
end

-- Seconds until amounts may be taken from levels that hold `more` than they say.
local function wait(amounts, more)
  local longest = 0
  for at, rate in ipairs(rates) do
    local lacks = math.min(amounts[at] or 0, rate[1]) - levels[at] - (more and more[at] or 0)
    if lacks > 1e-9 * math.max(1, rate[1]) then longest = math.max(longest, lacks / rate[2]) end
  end
  return longest
end

local function remaining()
  if now >= till then return 0 end
  if now < since then till, since = now + (till - since), now end
  return math.min(till - now, LONGEST)
end

local function cool(seen, asked)
  local last = now + remaining()
  -- A later generation than any here: this server has forgotten some.
  if seen > generation then generation = seen end
  local pause = asked
  if seen == generation then
    generation, streak = generation + 1, streak + 1
    if asked <= 0 then pause = FIRST * 2 ^ math.min(streak - 1, 30) end
  end
  -- A call of an older generation only passes on what the backend asked for; the buckets are drained all the same.
  if pause > 0 then till, since = math.max(last, now + math.min(pause, LONGEST)), now end
  local left = remaining()
  for at, rate in ipairs(rates) do
    if rate[1] ~= UNLIMITED then levels[at] = math.min(levels[at], math.min(1, rate[1]) - rate[2] * left) end
  end
end

for _, chore in ipairs(ask.chores) do
  if chore[1] == 't' then take(chore[2], 1)
  elseif chore[1] == 'c' then cool(chore[2], chore[3])
  elseif chore[2] == generation then streak = 0 end
end

local pause = remaining()
local freed, granted, waits, left = 0, 0, 0, 0
if ask.held then
  left = ask.ripe and 0 or wait(ask.held, ask.held)
  if left > 0 or pause > 0 then waits = 1 else freed = 1 end
end
if waits == 0 then
  for _, amounts in ipairs(ask.queue) do
    left = math.max(wait(amounts), pause)
    -- It pays now, so that no other process can take its turn, and goes when its time has come.
    take(amounts, 1)
    if left > 0 then waits = 1 break end
    granted = granted + 1
  end
end

local full = 0
local figures = {1, now, generation, streak, till, since}
for at, rate in ipairs(rates) do
  local bucket = aside[at] or {levels[at], now}
  figures[#figures + 1], figures[#figures + 2] = bucket[1], bucket[2]
  -- How long a bucket without a limit needs is not known here: not shorter than those with one said.
  local need = aside[at] and redis.call('PTTL', KEYS[1]) / 1000 - KEPT or (rate[1] - levels[at]) / rate[2]
  full = math.max(full, need)
end
local words = {}
for at, figure in ipairs(figures) do words[at] = string.format('%.17g', figure) end
local seconds = math.min(KEPT + math.max(full, pause), 2592000)
redis.call('SET', KEYS[1], table.concat(words, ' '), 'PX', string.format('%d', seconds * 1000))
return {freed, granted, string.format('%.17g', left), waits, string.format('%.17g', pause), generation, streak}
