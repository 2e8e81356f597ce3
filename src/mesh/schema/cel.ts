/**
 * The twin of a schema's refinement, in the language that the API server checks custom resources with; goes into the
 * schema by `.meta()`. The rule must hold for defaults too, which are judged before nested ones are filled in.
 *
 * @example z.strictObject({ … }).refine(one, { error: ONE }).meta(cel('has(self.a) != has(self.b)', ONE))
 */
export const cel = (rule: string, message: string) => ({ 'x-kubernetes-validations': [{ rule, message }] });
