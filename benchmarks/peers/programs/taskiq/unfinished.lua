-- What consumers have read and not acknowledged; what nobody has read yet shows in the handlers' counts.
return redis.call('XPENDING', 'taskiq', 'taskiq')[1]
