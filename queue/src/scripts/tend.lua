-- One round of a worker's keeper: renews its leases, takes back the expired leases of others,
-- promotes what is due. Bounded by the page.
-- ARGV     lease in µs, quiet time in µs, grace in µs, max crashes, page, dead jobs to keep,
--          then per held job: id, token
-- Returns  {ids that somebody else owns now, number of leases taken back}

local lost, leases = {}, {}
local deadline = num(now + tonumber(ARGV[1]))
for i = 7, #ARGV, 2 do
  local id = ARGV[i]
  local h = redis.call('HMGET', job_key(id), 'state', 'owner')
  if h[2] == ARGV[i + 1] then
    leases[#leases + 1] = deadline
    leases[#leases + 1] = id
  elseif h[1] then
    lost[#lost + 1] = id
  end
  -- A job that Redis does not know any more (FLUSHALL, deleted) may end in peace.
  if #leases >= 1000 then
    redis.call('ZADD', key('lease'), unpack(leases))
    leases = {}
  end
end
if #leases > 0 then redis.call('ZADD', key('lease'), unpack(leases)) end

-- When nobody has come by for a while, Redis was away or asleep, and the owners of leases that
-- ran out meanwhile have not had a chance to renew them: wait for them a little.
local meta = redis.call('HMGET', key('meta'), 'tended', 'grace')
local grace = tonumber(meta[2]) or 0
if now - (tonumber(meta[1]) or 0) > tonumber(ARGV[2]) then
  grace = now + tonumber(ARGV[3])
  redis.call('HSET', key('meta'), 'grace', num(grace))
end
redis.call('HSET', key('meta'), 'tended', num(now))

local page, taken = tonumber(ARGV[5]), 0
if now >= grace then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('lease'), '-inf', num(now), 'LIMIT', 0, page)) do
    redis.call('ZREM', key('lease'), id)
    local job = job_key(id)
    local h = redis.call('HMGET', job, 'group', 'crashes', 'state')
    if h[3] == 'running' then
      taken = taken + 1
      local crashes = tonumber(h[2]) + 1
      redis.call('HSET', job, 'crashes', crashes)
      redis.call('HDEL', job, 'again') -- the next run starts after the push it stands for
      if crashes >= tonumber(ARGV[4]) then
        die(id, 'lost its worker ' .. crashes .. ' times')
        count('failed', 'f', 1)
      else
        make_ready_first(id, h[1])
      end
      free_slot(h[1])
    end
  end
  trim('dead', tonumber(ARGV[6]))
end
promote(page)
finish()
return {lost, taken}
